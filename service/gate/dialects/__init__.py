"""The shapes of OpenAI's endpoints: where their content stands, and how a block looks in each."""

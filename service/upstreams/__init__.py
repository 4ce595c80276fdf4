"""Where answers come from: the generator of this process, or servers that speak OpenAI's API."""

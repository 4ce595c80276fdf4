"""How the embedded adapter is trained: data, packing, the training loop and the export."""

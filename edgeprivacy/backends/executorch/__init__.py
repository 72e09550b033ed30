"""Torch models, compressed and exported as ExecuTorch .pte and PyTorch Mobile .ptl files."""

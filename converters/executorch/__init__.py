"""ExecuTorch programs (.pte): written, checked and read back."""

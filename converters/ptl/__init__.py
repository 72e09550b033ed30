"""PyTorch Mobile files (.ptl) for the legacy lite interpreter: written, checked and read back."""

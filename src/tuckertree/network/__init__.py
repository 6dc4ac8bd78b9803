"""What can be compressed: a torch model or an ONNX file; chains put into it, and tried."""

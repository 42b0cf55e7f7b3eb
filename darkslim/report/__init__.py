"""What is shown: tables, figures, TensorBoard, the machine that was measured."""

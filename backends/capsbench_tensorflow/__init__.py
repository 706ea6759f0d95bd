"""The TensorFlow backend: plain operators in a traced graph, on CPU and GPU."""

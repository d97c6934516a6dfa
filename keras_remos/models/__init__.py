"""What a Keras model looks like from inside: its kernels and layers, taps on its calls, features, gradients, tokens."""

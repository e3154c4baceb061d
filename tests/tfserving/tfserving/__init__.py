"""A model server for tests: the flags, files, REST and gRPC of tensorflow_model_server, over real TensorFlow."""

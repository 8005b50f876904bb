"""SavedModels: the export of a trained run, and a session that runs one as TensorFlow Serving does."""

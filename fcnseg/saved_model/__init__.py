"""SavedModels: the export of a run, and a session that runs one as TensorFlow Serving does."""

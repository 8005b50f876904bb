"""The conversion as an Apache Beam job: transforms, shards, the state of a job, and its metrics."""

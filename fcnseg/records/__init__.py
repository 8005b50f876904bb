"""Training records: the schema, its encoding, the files that contain them, and their manifest.

Only `fcnseg.records.decoding` needs TensorFlow, and it is not imported here.
"""

from fcnseg.records.dataset import Dataset
from fcnseg.records.dataset_info import (
    CASE_FILES_FILE,
    COMPLETED_FILE,
    INFO_FILE,
    REJECTS_FILE,
    SPLITS,
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    read_dataset_info,
)
from fcnseg.records.encoding import encode_chunks, encode_record
from fcnseg.records.fingerprint import Fingerprint
from fcnseg.records.folds import Fold
from fcnseg.records.reading import read_cases
from fcnseg.records.schema import SCHEMA_VERSION, Part, Record, parts_of
from fcnseg.records.tfrecord import TFRecordWriter, read_tfrecord

__all__ = [
    "CASE_FILES_FILE",
    "COMPLETED_FILE",
    "INFO_FILE",
    "REJECTS_FILE",
    "SCHEMA_VERSION",
    "SPLITS",
    "Dataset",
    "DatasetInfo",
    "Fingerprint",
    "Fold",
    "Part",
    "Record",
    "ShardInfo",
    "SplitInfo",
    "TFRecordWriter",
    "encode_chunks",
    "encode_record",
    "parts_of",
    "read_cases",
    "read_dataset_info",
    "read_tfrecord",
]

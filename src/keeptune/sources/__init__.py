"""Where models and documents come from: names the user gives, turned into models, tokenizers and data sets."""

from keeptune.sources.data import load_documents, split_documents
from keeptune.sources.encode import encode, whole_rows
from keeptune.sources.models import DEFAULT_MODEL, document_start, load_model, load_tokenizer, resolve_model
from keeptune.sources.wheels import cache_folder, fetch_wheel_members

__all__ = [
    "DEFAULT_MODEL",
    "cache_folder",
    "document_start",
    "encode",
    "fetch_wheel_members",
    "load_documents",
    "load_model",
    "load_tokenizer",
    "resolve_model",
    "split_documents",
    "whole_rows",
]

"""Samples on disk: how they lie in HDF5, written shard by shard, opened lazily, checked before they are believed."""

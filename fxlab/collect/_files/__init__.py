"""Importer of tick files and frames into sessions."""

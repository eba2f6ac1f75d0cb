"""Search the parquet output of `plume-export embed` with LanceDB.

usage: search_lancedb.py BUNDLE EMBEDDINGS.parquet QUERY
"""

import sys

import lancedb
import pyarrow.parquet

from plume_export import Embedder

bundle, embeddings, query = sys.argv[1:]
database = lancedb.connect("embeddings.lance")  # a directory
table = database.create_table("inputs", pyarrow.parquet.read_table(embeddings), mode="overwrite")

with Embedder(bundle) as embedder:
    vector = embedder.encode(query)
for row in table.search(vector, vector_column_name="embedding").distance_type("cosine").limit(3).to_list():
    print(f"{1 - row['_distance']:.3f} {row['id']}")

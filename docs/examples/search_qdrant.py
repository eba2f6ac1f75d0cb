"""Search the parquet output of `plume-export embed` with Qdrant.

usage: search_qdrant.py BUNDLE EMBEDDINGS.parquet QUERY
"""

import sys

import pyarrow.parquet
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

from plume_export import Embedder

bundle, embeddings, query = sys.argv[1:]
client = QdrantClient(":memory:")  # a server: QdrantClient("http://localhost:6333")

with Embedder(bundle) as embedder:
    client.create_collection("inputs", VectorParams(size=embedder.dimension, distance=Distance.COSINE))
    vector = embedder.encode(query)
rows = pyarrow.parquet.read_table(embeddings).to_pylist()
points = [PointStruct(id=number, vector=row["embedding"], payload={"id": row["id"]}) for number, row in enumerate(rows)]
client.upload_points("inputs", points, wait=True)  # in batches

for point in client.query_points("inputs", query=vector.tolist(), limit=3).points:
    print(f"{point.score:.3f} {point.payload['id']}")

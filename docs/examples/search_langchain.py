"""Use a bundle as LangChain's `Embeddings`.

usage: search_langchain.py BUNDLE QUERY TEXT...
"""

import sys

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from plume_export import Embedder


class PlumeEmbeddings(Embeddings):
    """Texts to unit vectors. Documents and queries are embedded alike."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self._embedder.encode(text).tolist()


bundle, query, *texts = sys.argv[1:]
with Embedder(bundle) as embedder:
    store = InMemoryVectorStore.from_texts(texts, PlumeEmbeddings(embedder))
    for document, score in store.similarity_search_with_score(query, k=3):
        print(f"{score:.3f} {document.page_content}")

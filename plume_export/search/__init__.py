"""Search a folder of pictures: embed it once, rank it by a query, show it on a page."""

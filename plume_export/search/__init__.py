"""Search a folder of images: embed it once, rank it by a query, show the result on a page."""

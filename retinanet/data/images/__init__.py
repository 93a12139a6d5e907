from retinanet.data.images.reading import read_image

__all__ = ["read_image"]

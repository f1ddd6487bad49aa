from .layouts import *  # noqa
from .layouts import KINECT20, SkeletonLayout, NTU25, OPENPOSE18, COCO17, NTU25_PYSKL

from .layouts import *  # noqa
from .layouts import KINECT20, SkeletonLayout, NTU25, OPENPOSE18, COCO17, NTU25_PYSKL
from .adjacency import *
from .graph_conv import *
from .temporal_conv import *
from .stf import *
from .focus import *
from .losses import *
from .objective import *

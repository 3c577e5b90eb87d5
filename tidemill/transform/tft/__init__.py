"""What TensorFlow Transform says: the analyses that a preprocessing_fn asks for, and the artifact of their results."""

from tidemill.transform.tft.finish import save
from tidemill.transform.tft.paths import fingerprint
from tidemill.transform.tft.trace import Sink, TensorFunction, Trace

__all__ = ["Sink", "TensorFunction", "Trace", "fingerprint", "save"]

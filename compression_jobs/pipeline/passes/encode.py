"""Transport coding: what is sent to devices instead of the artifact.

Han et al. 2016, "Deep Compression", section 4, and RFC 1951. Without this pass the smallest coding is taken as well.
"""

from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.options import EncodeOptions
from compression_jobs.pipeline.transport import Transport, encoded


def encode(artifact: tuple[bytes, str], options: EncodeOptions, material: Material) -> Transport:
    """The bytes and format of an artifact as they are sent."""
    del material
    return encoded(*artifact, options.coding)

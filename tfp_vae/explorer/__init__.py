"""The explorer: a page on this machine that shows a trained model at work.

`Explored` answers, `uploads` takes in what a person draws or drops, and `page`, `parts` and
`server` show it by Bokeh, which the extra ``explore`` brings: only these three files import it.
"""

from tfp_vae.explorer.explored import Explored, Look
from tfp_vae.explorer.uploads import UploadError

__all__ = ["Explored", "Look", "UploadError"]

"""TeachText (Croitoru et al. 2021): teachers made of trained models, captions denoised by them.

`misc/make_teachers.py` and `misc/denoise_captions.py` are the command lines.
"""

TEACHERS_FOLDER, MASKS_FOLDER = "teachers", "denoising_masks"
SUFFIX, PUBLISHED_SUFFIX = ".teacher", ".pkl"
# How several teachers are joined to one.
AGGREGATES = ("mean", "max", "min", "median")

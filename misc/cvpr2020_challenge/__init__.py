"""The CVPR 2020 video pentathlon: five data sets, one submission, one score.

S. Albanie et al., *The End-of-End-to-End: A Video Understanding Pentathlon Challenge*, 2020
(arXiv 2008.00744).
"""

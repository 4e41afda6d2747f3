"""What a clip shows: backdrops, figures on their way, written words, and the video of it all."""

"""What the pages print, made anew from their own blocks; and the picture of the README."""

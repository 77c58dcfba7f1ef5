"""What was said to text, subtitles and JSON."""

"""Task ``scenes_vqa``: drawn scenes, and questions that have one answer."""

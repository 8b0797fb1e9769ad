"""Pictures of other people, opened in one place: known formats alone, and whatever Pillow raises as an error of ours."""

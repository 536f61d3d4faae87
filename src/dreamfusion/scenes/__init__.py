"""Scenes from a sentence: what is in it (`grammar`), how large (`sizes`), where (`layout`), is it so (`check`)."""

"""A page in the browser that recognises a visitor's clips; `page.py` alone needs Gradio."""

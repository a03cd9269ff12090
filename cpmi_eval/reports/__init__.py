"""What a person sees: tables in every form, and the page."""

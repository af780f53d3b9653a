"""Jobs over whole tables: which worker is at work on what, page after page, within what regions may be asked for."""

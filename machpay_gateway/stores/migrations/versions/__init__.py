"""One file a revision, oldest first. A released one is never edited: databases exist that it has made."""

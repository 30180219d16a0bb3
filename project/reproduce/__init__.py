"""The source document, claim by claim: what it prints beside what this code measures."""

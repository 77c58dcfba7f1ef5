"""The HTTP process: a request is received, counted, admitted and answered."""

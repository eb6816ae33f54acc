"""What is shipped inside a Bento, beside a copy of the Predictor: its service, and the lane by which a node asks it."""

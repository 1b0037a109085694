"""What no predictor can beat in the simulated world, and what the teacher's form costs."""

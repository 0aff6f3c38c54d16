//! Building the program, running it and ending it in order.

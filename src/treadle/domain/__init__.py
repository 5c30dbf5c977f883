"""What a thread is: values, events, and the state they fold into. Pure."""

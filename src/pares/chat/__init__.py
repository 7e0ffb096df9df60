"""Chat: messages to tokens and tokens to messages. Runs on the requester's machine, wherever the model is."""

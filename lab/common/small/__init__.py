"""Small decoders that the lab pretrains itself: shapes, texts, pretraining, fine-tuning, and what is read of them."""

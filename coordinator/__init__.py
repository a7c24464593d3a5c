"""What runs on the head: plan, lease, ingest, train, publish, push."""

"""svc-candidate: narrows thousands of shops and ads down to hundreds."""

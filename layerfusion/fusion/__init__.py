"""From pooled layers to one vector and a class: operators, head, training."""

"""The frozen split language model and the prompt generators.

    backbone   loads a checkpoint (gguf converts one, hub_access probes the Hub)
       |
    families   where each architecture keeps its parts
       |
    views      shallow copies of the model: lower stack, upper stack, head
       |           layers: modules put around transformers' own
    split      SplitModel: forward_lower, forward_upper, logits
       |
    generators hidden states -> prompt        inputs   Batch, Branches: what data hands to models
                                              scoring  logits -> label scores, loss

Shapes, in all modules: B rows, T tokens, m prompt vectors, S = m + T, D hidden size, d bottleneck,
E examples, U logit positions, N target tokens, V vocabulary; L layers, l the prompt's (1-based).
"""

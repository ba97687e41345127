"""Where keys and accounts are kept. Empty on purpose: `stores.memory` must not bring SQLAlchemy along."""

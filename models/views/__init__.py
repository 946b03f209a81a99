"""What turns one image into many: crops, flips, colours, blur, drawn ahead and applied to bytes."""
